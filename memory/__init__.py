"""A bounded memory of slots, the policies that decide which slots stay, and the compressions of evicted slots."""
