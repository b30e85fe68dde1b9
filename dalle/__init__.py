"""DALL·E: pictures become codes (a discrete VAE), and a transformer continues a caption with them."""
