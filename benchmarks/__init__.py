"""Commands that measure and print JSON. Nothing here is imported by the product."""
