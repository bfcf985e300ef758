"""Submissions to two challenges, in their forms. Only commands and stages import this room."""
