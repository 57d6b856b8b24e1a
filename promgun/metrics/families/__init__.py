"""The families, a module for each group; a handle is named after its family, in capitals, without prefix and suffix
``_total``.
"""
