"""CLIP: a picture and a caption become two unit vectors, near each other where they belong together."""
