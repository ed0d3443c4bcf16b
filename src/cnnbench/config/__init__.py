"""A run's configuration: schema, composition with Hydra, identity, and the objects that it is instantiated to."""
