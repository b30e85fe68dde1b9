"""What people open: the page. It puts the packages together and holds no model logic."""
