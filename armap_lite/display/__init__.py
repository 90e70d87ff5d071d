"""What a reader sees: figures, widgets, the report and the site."""
