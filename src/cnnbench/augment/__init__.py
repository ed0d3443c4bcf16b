"""Augmentation: steps that change a batch of training images, with separate random numbers for each image."""
