"""Searching a grid that was recorded once: how fast infertune's policy finds a good cell, and how fast its peers do."""
