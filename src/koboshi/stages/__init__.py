"""The pipeline's stages: each verb of the command line calls one function here."""
