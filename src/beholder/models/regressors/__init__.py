"""Scores from frozen features: ridge, kernel ridge, trees and a small network, stacked.

Only the configuration is loaded here, so that a recipe is read without scikit-learn or torch.
"""
