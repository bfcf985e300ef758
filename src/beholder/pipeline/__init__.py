"""Recipes, their stages, and the runner that turns a recipe into a run."""
