"""Codecs: how a row becomes a record of bytes, and its neighbours become codes beside it."""
