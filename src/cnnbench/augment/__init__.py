"""Steps that change a training batch, with random numbers of its own for each image."""
