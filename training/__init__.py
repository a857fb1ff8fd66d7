"""Makes and judges weights: blur synthesis, training, evaluation on the VideoDeblurring data set."""
