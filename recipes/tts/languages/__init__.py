"""How languages read aloud what is written otherwise; each is one file that defines `LANGUAGE`, named by its code."""
