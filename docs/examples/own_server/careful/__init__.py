"""Server policies of one's own: who is asked, what each device does, and how the mean update moves the model."""
