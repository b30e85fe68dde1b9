"""What the three models share: backbone, tokenizers, images, data, the one training loop, checkpoints, sampling."""
