"""Filters: one typed tree in four spellings (``expr``, ``sql``, ``mongo``, ``arrow``), checked
against the columns (``bind``), and evaluated into one bitmap per part (``masks``)."""
