from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)  # first calls import jsonschema, and the machine is shared
settings.load_profile("shared-machine")
