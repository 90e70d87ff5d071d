"""The shop that ships with the kit: products, texts and pictures made from the tables in this folder's JSON files."""
