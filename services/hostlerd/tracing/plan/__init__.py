"""Pure judgement: from what was seen to what it means."""
