"""What the demo shop holds."""

from dataclasses import dataclass

DEMO_PASSWORD = "payonce-demo"  # noqa: S105 - shown to everyone who starts the demo


@dataclass(frozen=True, kw_only=True)
class DemoMember:
    """A person to try the shop as."""

    login: str
    display_name: str
    points: int


DEMO_MEMBERS = (
    DemoMember(login="alice", display_name="Alice 林悦", points=50_000),
    DemoMember(login="bob", display_name="Bob 周博", points=8_000),
)

# Prices in fen and points; mixed goods take points_min to points_max points, one point a fen.
DEMO_PRODUCTS: tuple[dict[str, str | int], ...] = (
    {
        "sku": "celadon-teapot",
        "name_zh": "龙泉青瓷茶壶",
        "name_en": "Longquan celadon teapot",
        "description_zh": "粉青釉，手工拉坯，出水利落，断水不滴。容量 260 毫升，两三人喝茶正好。",
        "description_en": "Powder-blue glaze, thrown by hand, with a spout that pours cleanly and"
        " stops without a drip. Holds 260 ml: tea for two or three.",
        "art": "teapot",
        "line": "tea",
        "price_mode": "mixed",
        "price_fen": 16_800,
        "points_min": 0,
        "points_max": 8_400,
        "stock": 400,
    },
    {
        "sku": "canvas-tote",
        "name_zh": "帆布托特包",
        "name_en": "Canvas tote bag",
        "description_zh": "十二安厚帆布，内侧有暗袋，装得下一台笔记本电脑和一天的东西。",
        "description_en": "Heavy 12 oz canvas with a pocket inside. Takes a laptop and whatever"
        " else the day asks for.",
        "art": "tote",
        "price_mode": "points",
        "price_points": 1_800,
        "stock": 600,
    },
    {
        "sku": "folding-umbrella",
        "name_zh": "三折晴雨伞",
        "name_en": "Folding umbrella",
        "description_zh": "八骨抗风，黑胶防晒，收起来只有手掌长。可以全部用积分兑换。",
        "description_en": "Eight ribs that stand up to wind, a lining that keeps off the sun, and"
        " no longer than a hand when folded. Can be had for points alone.",
        "art": "umbrella",
        "price_mode": "mixed",
        "price_fen": 7_900,
        "points_min": 1_000,
        "points_max": 7_900,
        "stock": 500,
    },
    {
        "sku": "longjing-tea",
        "name_zh": "明前龙井 100 克",
        "name_en": "Longjing spring tea, 100\u00a0g",
        "description_zh": "清明前采摘，豆香清甜。铁罐密封，附一只小茶匙。",
        "description_en": "Picked before the Qingming festival; sweet, with a note of chestnut. In"
        " a sealed tin with a small spoon.",
        "art": "tea",
        "line": "tea",
        "price_mode": "cash",
        "price_fen": 8_800,
        "stock": 300,
    },
    {
        "sku": "linen-notebook",
        "name_zh": "布面笔记本",
        "name_en": "Linen notebook",
        "description_zh": "A5，192 页点阵内页，能完全摊平，钢笔书写不洇。",
        "description_en": "A5, 192 dotted pages that lie flat and do not bleed under a fountain"
        " pen.",
        "art": "notebook",
        "price_mode": "points",
        "price_points": 2_400,
        "stock": 800,
    },
    {
        "sku": "steel-flask",
        "name_zh": "不锈钢保温杯",
        "name_en": "Steel vacuum flask",
        "description_zh": "500 毫升，早上泡的茶到傍晚还是热的。杯盖一拧即开，不漏水。",
        "description_en": "500 ml. Tea made in the morning is still hot in the evening, and the lid"
        " does not leak.",
        "art": "flask",
        "price_mode": "mixed",
        "price_fen": 12_900,
        "points_min": 0,
        "points_max": 6_450,
        "stock": 350,
    },
    {
        "sku": "reading-lamp",
        "name_zh": "护眼阅读灯",
        "name_en": "Reading lamp",
        "description_zh": "无频闪，四档色温，灯臂可以停在任何角度。",
        "description_en": "No flicker, four shades of light from candle to noon, and an arm that"
        " stays where you put it.",
        "art": "lamp",
        "line": "devices",
        "price_mode": "mixed",
        "price_fen": 23_900,
        "points_min": 2_000,
        "points_max": 12_000,
        "stock": 200,
    },
    {
        "sku": "over-ear-headphones",
        "name_zh": "头戴式降噪耳机",
        "name_en": "Noise-cancelling headphones",
        "description_zh": "一次充电听四十小时，耳罩柔软，戴眼镜也不夹。",
        "description_en": "Forty hours on one charge, and cushions soft enough to wear with"
        " glasses.",
        "art": "headphones",
        "line": "devices",
        "price_mode": "cash",
        "price_fen": 39_900,
        "stock": 150,
    },
    {
        "sku": "pothos-in-a-pot",
        "name_zh": "绿萝盆栽",
        "name_en": "Pothos in a pot",
        "description_zh": "好养的室内绿植，一周浇一次水。陶盆直径 12 厘米。",
        "description_en": "An easy plant for indoors that is happy with water once a week. Clay"
        " pot, 12 cm.",
        "art": "plant",
        "price_mode": "points",
        "price_points": 3_600,
        "stock": 250,
    },
    {
        "sku": "coffee-voucher",
        "name_zh": "手冲咖啡兑换券",
        "name_en": "Pour-over coffee voucher",
        "description_zh": "在任意门店换一杯手冲咖啡，一年内有效。积分和现金随意搭配。",
        "description_en": "One pour-over coffee at any of our bars, good for a year. Mix points and"
        " cash as you like.",
        "art": "coffee",
        "price_mode": "mixed",
        "price_fen": 3_000,
        "points_min": 0,
        "points_max": 3_000,
        "stock": 900,
    },
    {
        "sku": "silk-fan",
        "name_zh": "苏绣团扇",
        "name_en": "Embroidered silk fan",
        "description_zh": "真丝扇面，苏绣玉兰，竹柄。每季只做几把。",
        "description_en": "A magnolia embroidered on silk in the Suzhou way, on a bamboo handle."
        " Only a few are made each season.",
        "art": "fan",
        "price_mode": "points",
        "price_points": 12_000,
        "stock": 3,
    },
)
