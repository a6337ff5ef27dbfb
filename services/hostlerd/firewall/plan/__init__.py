"""Pure planners: from rulesets to nft's words, and from what is wanted to steps."""
