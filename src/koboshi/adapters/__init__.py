"""Our environments in other libraries' words, and theirs in ours."""
