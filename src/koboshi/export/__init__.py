"""Controllers as files that run without torch, checked before they leave."""
