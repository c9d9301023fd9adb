"""Tables: HiveQL on DuckDB over Parquet, JSONL and CSV, and the docstrings table of the demo."""
