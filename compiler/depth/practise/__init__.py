"""Practise: blocks dropped by how well what is missing can be made up for, without labels."""
