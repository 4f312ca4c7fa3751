"""Plans of which the images' size is a choice, too."""
