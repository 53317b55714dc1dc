"""Learning algorithms; they meet an environment only through `koboshi.vec_env`."""
