"""Readers fed with damaged and made-up inputs; nothing but a ValueError may come out of them."""
