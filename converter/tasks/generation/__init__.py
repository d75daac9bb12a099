"""A first look at a language model: text goes in, and what it goes on with comes out."""
