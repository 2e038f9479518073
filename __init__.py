"""vqmem: decide what a language model's memory keeps, for text and for speech.

Public names, which `__init__.pyi` lists, are imported on first use: ``import vqmem`` and ``vqmem --help`` stay instant.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
