"""Masks at clicks: drawn, refined, cached, written in parts."""
