"""The gateway: takes readings in the field, never loses one, sends it when there is a link."""
