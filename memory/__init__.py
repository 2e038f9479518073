"""A bounded memory of slots, the policies that say which slots stay, and what becomes of those that do not."""
