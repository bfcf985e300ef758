"""The written grammar of the sample's comments: what may be said, and when it is true.

A rule's name is a symbol, or a symbol and the fact it depends on (`light.dark`). `{symbol}` in a
phrase stands for any phrase of that rule. Facts: `kind` of distortion, `grade` of the pseudo-MOS,
`brightness`, `colourfulness` and `texture`, all measured on the picture or known of it. Strength
goes by grade and not by level, as the same blur is worse on leaves than on the sky; only for
contrast it goes by level, since SSIMULACRA2 punishes a change of contrast more than eyes do.
"""

from __future__ import annotations

# A comment names a distortion by one of these words, and uses no other kind's.
KEYWORDS: dict[str, frozenset[str]] = {
    "none": frozenset(("clean", "flawless", "pristine", "untouched", "undistorted", "faultless")),
    "jpeg": frozenset(("jpeg", "blocky", "blocks", "blocking", "squares", "checkered")),
    "webp": frozenset(("webp", "smeared", "smearing", "smeary", "smudged", "smudges")),
    "blur": frozenset(("blur", "blurred", "blurry", "blurring", "unfocused", "focus")),
    "noise": frozenset(("noise", "noisy", "grain", "grainy", "speckles", "speckled")),
    "downscaling": frozenset(("resolution", "enlarged", "upscaled", "downscaled", "magnified")),
    "contrast": frozenset(("contrast", "faded", "flat", "hazy", "haze", "washed")),
}

# What each crop of each photo shows.
SUBJECTS: dict[str, tuple[str, str, str, str]] = {
    "aitzgorri": (
        "autumn woods below a mountain", "a green meadow and autumn trees",
        "a rocky mountain ridge", "a meadow with a dark fir",
    ),
    "astronaut": (
        "a smiling astronaut beside a flag", "an orange space suit with a badge",
        "a smiling woman and a model shuttle", "a white helmet with a black visor",
    ),
    "chelsea": (
        "a tabby cat with a green eye", "the face of a tabby cat",
        "a striped cat with green eyes", "a ginger cat seen up close",
    ),
    "coffee": (
        "a red cup on a wooden table", "a red saucer and a cup handle",
        "an espresso in a red cup", "a spoon on a red saucer",
    ),
    "friends": (
        "a spaniel at a window", "two spaniels by a white wall",
        "a dog above a wooden balcony", "weathered wooden planks and a rail",
    ),
    "life": (
        "a wooded slope with rocks", "a stream between boulders",
        "a brook in a green forest", "mossy rocks and tree roots",
    ),
    "picosdeeuropa": (
        "a cloud above craggy peaks", "a dirt trail on a hillside",
        "a grey summit under blue sky", "a grassy slope below snow",
    ),
    "picture_0b": (
        "a curved shadow on concrete", "a cut fig in a red bowl",
        "half a fig in a red dish", "the rim of a red bowl",
    ),
    "picture_1a": (
        "blue bristles of a paint brush", "pink and blue paint brushes",
        "pink and yellow bristles", "used brushes with wooden handles",
    ),
    "rocket": (
        "a lattice tower against the evening", "a rocket on a lit launch pad",
        "the tip of a rocket at dusk", "launch towers and lamps",
    ),
    "seeding": (
        "a dandelion clock in a field", "a dandelion on its stem",
        "dandelions facing a low sun", "dandelions among the grass",
    ),
    "sunset": (
        "an evening sky over hills", "sun rays over a hillside",
        "a low sun above hills", "a stone table on a hilltop",
    ),
    "wine": (
        "a wine bottle beside a loudspeaker", "a rustic table with a coffee grinder",
        "a drum on a leather seat", "a beanbag on a stone floor",
    ),
}  # fmt: skip

# One comment of each line per picture, in this order; every one names the distortion.
SENTENCES: tuple[tuple[str, ...], ...] = (
    (
        "{adverb} {adjective}, {verdict}",
        "the {thing} looks {adverb} {adjective}, {verdict}",
        "{amount} {noun}, {verdict}",
        "{clause}, {verdict}",
        "{verdict}, the {thing} is {adverb} {adjective}",
        "I see {amount} {noun} here, {verdict}",
        "{amount} {noun} {everywhere}",
    ),
    (
        "{light}, but {amount} {noun}",
        "{light}, and {clause}",
        "{clause} and {light}",
        "{adverb} {adjective}, {light}",
        "{amount} {noun} in a {thing} where {light}",
        "{light}, the {thing} is {adverb} {adjective}",
    ),
    (
        "{colour}, yet {clause}",
        "{colour}, {amount} {noun}",
        "{adverb} {adjective} with {tones}",
        "a {mood} {thing} with {amount} {noun}",
        "{tones} and {amount} {noun} in this {thing}",
        "{mood} and {adverb} {adjective}, {colour}",
    ),
    (
        "{thing} of {subject}, {adverb} {adjective}",
        "{subject} with {amount} {noun}",
        "a {mood} {thing}, but {clause}",
        "{edges}, {clause}",
        "{edges} and {amount} {noun}, {verdict}",
        "{opinion}, {amount} {noun}",
        "{opinion}, the {thing} is {adverb} {adjective}",
    ),
    (
        "{light} and {colour}, {adverb} {adjective}",
        "a {mood} {thing}, {light}, {clause}",
        "a {mood} {thing} with {tones}, {adverb} {adjective}",
        "{light}, with {amount} {noun}, {opinion}",
        "{thing} of {subject}, {colour}, {amount} {noun}",
        "{colour}, it feels {mood} and {adverb} {adjective}",
        "{tones} in a {mood} {thing}, {amount} {noun}",
    ),
)

RULES: dict[str, tuple[str, ...]] = {
    "thing": ("picture", "photo", "image", "shot", "photograph", "frame", "snapshot", "view"),
    "everywhere": (
        "all over the frame", "across the whole picture", "in every corner", "from edge to edge",
        "wherever I look", "in the entire image", "throughout the photo",
    ),
    # How strong: before an adjective, and before a noun.
    "adverb.excellent": ("barely", "hardly", "scarcely", "almost imperceptibly"),
    "adverb.good": ("slightly", "a little", "mildly", "faintly", "a bit"),
    "adverb.fair": ("visibly", "noticeably", "moderately", "rather", "somewhat"),
    "adverb.poor": ("clearly", "strongly", "very", "heavily", "obviously"),
    "adverb.bad": ("extremely", "terribly", "awfully", "severely", "horribly"),
    "amount.excellent": ("a trace of", "a hint of", "hardly any", "barely visible", "next to no"),
    "amount.good": ("slight", "a little", "mild", "a touch of", "faint", "minor"),
    "amount.fair": ("noticeable", "visible", "moderate", "some", "distinct", "evident"),
    "amount.poor": ("strong", "heavy", "obvious", "a lot of", "plenty of", "disturbing"),
    "amount.bad": ("extreme", "severe", "massive", "terrible", "overwhelming", "far too much"),
    # What is wrong: adjectives, nouns and clauses that hold at any strength.
    "adjective.jpeg": ("blocky", "blocky", "blocky from jpeg compression", "checkered by jpeg"),
    "adjective.webp": ("smeared", "smudged", "smeared by webp compression", "smeary"),
    "adjective.blur": ("blurry", "blurred", "out of focus", "unfocused"),
    "adjective.noise": ("noisy", "grainy", "speckled", "noisy like a high iso shot"),
    "adjective.downscaling": (
        "low in resolution", "lacking resolution", "poor in resolution",
        "soft from being enlarged",
    ),
    "adjective.contrast": ("flat", "low in contrast", "washed out", "hazy", "faded"),
    "noun.jpeg": ("jpeg blocking", "blocky jpeg compression", "jpeg compression", "blocking"),
    "noun.webp": ("webp smearing", "webp compression", "smearing", "smeared texture"),
    "noun.blur": ("blur", "gaussian blur", "blurring of edges", "blur on all contours"),
    "noun.noise": ("noise", "grain", "colour noise", "sensor noise", "random grain"),
    "noun.downscaling": (
        "loss of resolution", "resolution loss", "upscaled softness", "softness from upscaled data",
    ),
    "noun.contrast": ("loss of contrast", "haze", "contrast reduction", "lack of contrast"),
    "clause.jpeg": (
        "jpeg compression left small squares", "square jpeg blocks sit on the surfaces",
        "the encoder cut it into blocks", "blocks show where tones should glide",
    ),
    "clause.webp": (
        "webp compression smudged fine texture", "the webp encoder smeared weak details",
        "fine patterns are smeared together", "delicate texture turned into smudges",
    ),
    "clause.blur": (
        "blur softens the outlines", "a blur lies over everything",
        "the lens seems out of focus", "contours are blurred",
    ),
    "clause.noise": (
        "grain dances on smooth areas", "speckles cover the surfaces",
        "random noise sits on every tone", "coloured speckles disturb plain regions",
    ),
    "clause.downscaling": (
        "it was enlarged from a tiny file", "it looks upscaled from fewer pixels",
        "the resolution does not hold small details", "someone downscaled and magnified it",
    ),
    "clause.contrast": (
        "contrast was taken away", "a veil of haze covers the scene",
        "lights and shadows are washed together", "the tonal range is flat",
    ),
    # The pristine picture: the same symbols, so that the same sentences hold.
    "adverb.none": ("perfectly", "completely", "entirely", "absolutely", "wonderfully"),
    "amount.none": ("lovely", "perfect", "natural", "honest", "convincing"),
    "adjective.none": ("clean", "flawless", "untouched", "undistorted", "faultless"),
    "noun.none": (
        "clean detail", "untouched quality", "clean rendering", "flawless transitions",
        "pristine texture",
    ),
    "clause.none": (
        "everything is clean and natural", "the file is pristine", "nothing spoils this clean shot",
        "every transition is clean", "all of it is untouched",
    ),
    # How good.
    "verdict.excellent": (
        "excellent quality", "superb quality", "it looks great", "a pleasure to see",
        "I would keep it", "very good indeed", "top marks",
    ),
    "verdict.good": (
        "good quality", "still pleasant", "it looks fine", "nice overall", "easy to live with",
        "good enough to print", "a likeable result",
    ),
    "verdict.fair": (
        "acceptable quality", "average quality", "just passable", "neither good nor bad",
        "fair for a thumbnail", "a mixed impression", "it could be better",
    ),
    "verdict.poor": (
        "poor quality", "a disappointing result", "unpleasant to look at", "hard to like",
        "it hurts the impression", "an annoying fault", "below expectations",
    ),
    "verdict.bad": (
        "bad quality", "the shot is ruined", "practically unusable", "awful to watch",
        "I would delete it", "painful for the eyes", "a total failure",
    ),
    "opinion.excellent": (
        "I really enjoy this one", "among the best here", "a delight", "nothing to complain about",
    ),
    "opinion.good": (
        "I like it", "quite nice despite small faults", "a decent result", "mostly convincing",
    ),
    "opinion.fair": (
        "not sure about this one", "it is okay", "a mediocre effort", "tolerable but not great",
    ),
    "opinion.poor": (
        "I do not like it", "this needs another attempt", "sadly degraded", "not worth sharing",
    ),
    "opinion.bad": (
        "I dislike it a lot", "please shoot it again", "the worst kind of damage",
        "barely bearable",
    ),
    # Light, colour, mood, edges: measured on the picture.
    "light.dark": (
        "the scene is dark", "it is dark", "the light is dim", "the exposure is low",
        "deep shadows dominate", "there is little light", "it is underexposed",
    ),
    "light.medium": (
        "the exposure is balanced", "brightness is moderate", "the light is even",
        "the lighting is average", "it is neither dark nor bright", "the exposure looks right",
    ),
    "light.bright": (
        "the scene is bright", "it is bright", "there is plenty of light", "the light is generous",
        "the exposure is high", "luminous areas dominate", "it is well lit",
    ),
    "colour.muted": (
        "the colours are muted", "colours look dull", "the palette is subdued",
        "there is little colour", "the hues are restrained", "it is nearly grey",
    ),
    "colour.moderate": (
        "the colours are natural", "colours look moderate", "the palette is balanced",
        "the hues are gentle", "saturation is ordinary", "the colouring is realistic",
    ),
    "colour.vivid": (
        "the colours are vivid", "colours look saturated", "the palette is bold",
        "the hues are intense", "the colouring is rich", "colours pop",
    ),
    "tones.muted": ("muted tones", "subdued hues", "dull colours", "greyish tones"),
    "tones.moderate": ("natural tones", "gentle hues", "moderate colours", "ordinary saturation"),
    "tones.vivid": ("vivid tones", "saturated hues", "bold colours", "rich pigments"),
    "mood.dark.muted": ("gloomy", "sombre", "melancholic", "brooding"),
    "mood.dark.moderate": ("moody", "mysterious", "serious", "quiet"),
    "mood.dark.vivid": ("dramatic", "intense", "passionate", "smouldering"),
    "mood.medium.muted": ("sober", "reserved", "plain", "understated"),
    "mood.medium.moderate": ("calm", "relaxed", "peaceful", "everyday"),
    "mood.medium.vivid": ("lively", "warm hearted", "energetic", "spirited"),
    "mood.bright.muted": ("airy", "cool", "delicate", "sparse"),
    "mood.bright.moderate": ("fresh", "friendly", "open", "pleasant"),
    "mood.bright.vivid": ("cheerful", "joyful", "playful", "radiant"),
    "edges.fine": (
        "plenty of fine structure", "many small contours", "busy surfaces", "lots of tiny edges",
    ),
    "edges.plain": (
        "smooth surfaces", "few hard edges", "soft contours", "broad quiet areas",
    ),
}  # fmt: skip
