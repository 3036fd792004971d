"""Stock of words for the thoughts of constructed trajectories: each list holds ways to say one thing.

``thoughts.py`` chooses among them with a seed and fills in what was measured.
"""

from __future__ import annotations

ADVICE: dict[str, tuple[str, ...]] = {
    "introduce a visible defect": (
        "nothing that would count as a defect can be made out",
        "the edit left no mark that an inspector would stop at",
    ),
    "make the defect more pronounced: the surface's own texture": (
        "the surface runs on through it as it would under a stain",
        "it lies on the texture like a wash, where the surface should be broken",
    ),
    "make the defect more pronounced": (
        "it drowns in what the surface shows anyway",
        "it hardly stands out from its surroundings",
        "the mark is too weak to be told from ordinary texture",
    ),
    "make the defect less pronounced": (
        "it is stronger than such damage gets on this material",
        "it shouts; the real thing is quieter",
        "the contrast is beyond what this light would give",
    ),
    "make the defect larger": (
        "it is too small to be told from a speck",
        "its extent is below what this defect usually has",
    ),
    "make the defect smaller": (
        "it takes up more of the part than this defect does",
        "it has outgrown a local defect",
    ),
    "move the defect onto the part": ("part of it hangs over the background", "it does not sit on the part as a whole"),
    "move the defect away from the outline: it belongs": (
        "it sits at the border, while this defect goes through the middle",
        "it lies near the outline and belongs into the middle of the part",
    ),
    "move the defect away from the outline": (
        "it spills over the outline where the part ends",
        "a piece of it lies beyond the outline",
    ),
    "place the defect on the edge of the part": (
        "it sits inside the face, while this damage starts at an edge",
        "it has no contact with the outline, where it belongs",
    ),
    "blend the border of the defect": ("its border looks laid on", "the transition to the good surface is too abrupt"),
    "keep the surface texture visible": (
        "the surface's own texture is lost inside it",
        "the texture does not run on through it, so it reads as a patch",
    ),
    "match the sharpness of the photo": (
        "it is not as sharp as the rest of the photo",
        "its focus does not agree with the surroundings",
    ),
    "match the grain of the photo": ("its grain differs from the photo's", "it is cleaner than the photo's own noise"),
    "give the defect an elongated shape": (
        "it is a blot where a line is wanted",
        "its outline is too round for this type",
    ),
    "give the defect a compact shape": (
        "it is drawn out like a line, though a patch is wanted",
        "it is too thin for its type",
    ),
    "make the defect darker": ("it is not dark enough for an opening", "it lacks the shade that depth would give"),
    "show light and shade only": (
        "it has a colour, though only the relief should change",
        "it looks painted, not shaped",
    ),
    "give the defect the brown or orange of rust": ("its colour is not that of rust",),
    "give the defect no colour": ("it brings a tint into a grey photo",),
    "leave everything outside the defect unchanged": ("something beside the defect changed as well",),
}
"""A judge's advice (its beginning, in lower case) to what it means in the picture."""

WANTED = (
    "The task asks for {kind} and for nothing else to change.",
    "It is to get one defect of the type {kind}, everything else staying as it is.",
    "I have to make {kind} believable on it.",
    "What it lacks is {kind}.",
)
START = (
    "I begin with prompt_gen, which knows where this type can occur on such a part.",
    "No image has been made yet, so the first thing is an editing prompt.",
    "First I need wording that fits the material; that is prompt_gen's work.",
    "Before any edit I let prompt_gen read the photo and propose a place.",
)
FIRST: dict[str, tuple[str, ...]] = {
    "": (
        "Nothing speaks against it so far, so I use it as it stands.",
        "Material and light are covered; whether place and extent suit this very photo only an image can tell.",
    ),
    "weak": (
        "That is cautious for this surface, but a first image shows how it takes the change.",
        "I suspect that so little may get lost in the texture; I try it and see.",
    ),
    "strong": (
        "That is a bold wish for this part; a first image will show whether it holds.",
        "It asks for much. I would rather see it once than guess.",
    ),
    "place": (
        "Whether this place suits the defect is to be seen.",
        "I am not sure of the place, and an image will settle it.",
    ),
    "soft": (
        "A border that fades out may suit the surface or may look washed out; an image will tell.",
        "The soft border that it asks for is a guess about the material, to be checked.",
    ),
    "wide": (
        "To let it reach that far is generous; I look how the part takes it.",
        "So large an extent could be too much, but better to see it than to guess.",
    ),
    "shape": (
        "Whether that outline is right for this type I can only tell from an image.",
        "The shape is my doubt here; one image will settle it.",
    ),
    "bare": (
        "It says neither where nor how large, so this is no more than a baseline.",
        "The wording leaves nearly everything open; I take the first image as a starting point.",
    ),
    "real": (
        "Place, extent and tone are all named, which leaves the edit little room to go wrong.",
        "It is specific about where and how far, and it keeps the rest of the photo; I use it as it is.",
        "This agrees with what the photo offers at that spot, so I have it drawn.",
    ),
}
"""What the first prompt deserves, by its flaw."""

JUDGE = (
    "My eye is not the measure here; I have it judged.",
    "Next the judge, before I build on it.",
    "I ask for an evaluation against the original.",
    "Let quality_eval compare it with image 1.",
    "That impression needs a second opinion from quality_eval.",
)
REJECTED = (
    "Image {index} does not pass: {why}.",
    "That is not accepted, and rightly so: {why}.",
    "The review turns image {index} down because {why}.",
    "Not good enough yet: {why}.",
)
LOOK_UP = (
    "Rewording blindly would be guessing. I look up how {kind} really forms on this kind of part.",
    "I lack a clear picture of the real thing, so I consult the references on {kind}.",
    "Before the next attempt I want to know what an authentic case of {kind} looks like here.",
    "The prompt needs facts rather than adjectives; I retrieve what is known of {kind}.",
)
LEARNED = (
    'The reference says: "{fact}"',
    'What I take from the references: "{fact}"',
    'One line matters most here: "{fact}"',
)
CHANGES = (
    "In the next prompt I {changes}.",
    "So I {changes}.",
    "The next wording therefore will {changes}.",
    "I rewrite the prompt to {changes}.",
)
FRESH = (
    "The edit starts again from image 1.",
    "As always the original is the target, not the failed attempt.",
    "",
    "",
)
PASSED = (
    "The review has no objection left: place, strength and texture hold together.",
    "It passes, and what the review praises agrees with what I see.",
    "That is accepted.",
    "The evaluation confirms it.",
)
PASSED_WITH = (
    "It passes. What the review still says, that {why}, is a small matter by its score.",
    "That is accepted, although {why}: the score shows how little that weighs.",
    "Passed; the remark that {why} does not outweigh the rest.",
)
MASK = (
    "Image {index} is the one to keep, so I have its mask made.",
    "I stop editing here and get the mask of image {index}.",
    "Further attempts could only spoil it. mask_gen for image {index}.",
    "What remains is the mask of image {index}.",
)
DONE = (
    "The sample is complete.",
    "Image and mask belong together, so I can answer.",
    "Nothing is left to do.",
    "That closes the task.",
)

SEEN = (
    "In image {index} I see {what}.",
    "Image {index} now shows {what}.",
    "The change in image {index}: {what}.",
    "Looking at image {index}, I find {what}.",
    "What image {index} adds to the part: {what}.",
    "Image {index} against image 1: {what}.",
)
ALIKE = (
    "It is close to image {index}.",
    "Much has not changed since image {index}.",
    "The step from image {index} is a small one.",
)
COMPARED = (
    "Against image {index} it is {how}.",
    "Compared with image {index}, it is {how}.",
    "It has become {how} since image {index}.",
)
MOVED = (
    "It now lies in the {here} part, no longer in the {there} one.",
    "Its place is the {here} part this time, not the {there} one.",
)
INSTEAD = (
    "Image {index} shows {what} instead.",
    "What I have in image {index}, {what}, is short of that.",
    "Measured by that, {what} in image {index} falls short.",
)
CALM = (
    "The surface in the {where} part is calmer than elsewhere, so a mark can be read there.",
    "That area has little texture of its own to hide a defect.",
    "There the part is smooth, and even a small change shows.",
)
BUSY = (
    "The surface there is busy: the defect has to interrupt that structure to be seen.",
    "There is much structure in the {where} part, which the defect must cut through.",
)
LIT = (
    "The {where} part catches more light than the rest, which gives the defect contrast.",
    "That zone is brighter than the rest of the part; shade will show there.",
)
SHADED = (
    "The {where} part lies in the darker zone, so the tone matters there.",
    "That zone gets less light than the rest, and the defect has to follow it.",
)
OUTLINE = (
    "It must touch the outline there, and not float beside it.",
    "At the outline the border of the part has to change with it.",
)
GOOD = (
    "In image {index} {why}.",
    "Image {index} convinces me: {why}.",
    "I agree, since in image {index} {why}.",
    "To my eye {why}.",
)
