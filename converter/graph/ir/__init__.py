"""The intermediate representation: values, statements, bodies, sizes, names."""
