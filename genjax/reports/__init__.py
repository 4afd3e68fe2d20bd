"""Reports for people: pictures, figures, plots, sounds, HTML and Markdown.

Imports: floors 1 to 4. Start with `pictures.py`; `comparison_page.py` and `results.py` write whole pages.
"""
