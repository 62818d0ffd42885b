"""Openly licensed emoji drawings as a captioned dataset: built once, then sampled from."""
