"""Metrics of opinions: correlation of scores, classification of attributes, captions.

Light: numpy and scipy only. Nothing here imports torch unless CLIPScore is asked for.
"""
