"""What an internal certificate authority allows, signs and publishes. Pure: no files, no clock."""
