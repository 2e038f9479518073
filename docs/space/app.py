"""The explorer as a Space of Hugging Face, which runs this file and chooses the address."""

from vqmem.recipes.explore.app import build, launch
from vqmem.recipes.explore.settings import Settings

if __name__ == "__main__":
    launch(build(Settings()))
