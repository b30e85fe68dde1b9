"""Language model: tokens, backbone, next-token loss; and writing. After GPT-2 (Radford et al. 2019)."""
