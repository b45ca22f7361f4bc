"""Names of `distilabel.mixins`, where distilabel's users look for them."""
