"""The live view: ``promgun metrics top``."""
