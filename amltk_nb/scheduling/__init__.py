"""The engine: knows no notebook, no widget, no rich."""
