"""The catalogue that ships with the kit: products, their pictures and their texts, made from tables."""
