"""Linear chains beside layers: trained, then merged back."""
