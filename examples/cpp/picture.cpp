#include "picture.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

namespace {

constexpr int side_least =
    560;  // px of the shorter side from which squares are made; part of "reduced-crop-pad-resize-2"
constexpr int pixels_most = 80'000'000, side_min = 128;
constexpr double line_share = 0.02, share_min = 0.1;  // of a line must be lit; of the lines must remain
constexpr double corner = 0.02, even_most = 6, hue_most = 16, all = 0.97;
// of what lies around a screen: the most hue, as a share of the brightest channel; the side on which the retina is
// looked for, px; how much of the ellipse in its box that fills; its shorter side over the longer one
constexpr double pale_most = 0.3, round_least = 0.9, round_most = 1.2, slim_most = 0.7;
constexpr int small_side = 256;
constexpr int alike = 14;           // of 255, how far the colours of a border may differ
constexpr double excess_most = 20;  // of 255, by which green or blue may be brighter than red

bool starts(const Bytes& data, const std::string& with) {
    return data.size() > with.size() && std::equal(with.begin(), with.end(), data.begin(), [](char a, unsigned char b) {
               return static_cast<unsigned char>(a) == b;
           });
}

bool ends(const Bytes& data, const std::string& with) {
    return data.size() > with.size() &&
           std::equal(with.rbegin(), with.rend(), data.rbegin(),
                      [](char a, unsigned char b) { return static_cast<unsigned char>(a) == b; });
}

int word(const Bytes& data, size_t at) { return data[at] << 8 | data[at + 1]; }

cv::Size jpeg_size(const Bytes& data) {
    for (size_t at = 2; at + 10 < data.size() && data[at] == 0xFF;) {
        const int marker = data[at + 1];
        if (marker == 0xFF) {  // markers may be filled up
            ++at;
        } else if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
            if (data[at + 9] < 3)
                throw Refused("NOT_COLOUR", "the picture has one channel; a colour photograph is needed");
            return {word(data, at + 7), word(data, at + 5)};
        } else {
            at += 2 + word(data, at + 2);
        }
    }
    throw Refused("DAMAGED", "the JPEG header is cut or corrupt");
}

cv::Size png_size(const Bytes& data) {
    if (data.size() < 33 || word(data, 16) || word(data, 20))
        throw Refused("DAMAGED", "the PNG header is cut or corrupt");
    return {word(data, 18), word(data, 22)};
}

// Of the lines whose counts are given, those with more than so many.
std::vector<int> above(const cv::Mat& counts, double least) {
    std::vector<int> found;
    for (int k = 0; k < static_cast<int>(counts.total()); ++k)
        if (counts.at<int>(k) > least) found.push_back(k);
    return found;
}

cv::Rect field_of_view(const cv::Mat& pixels, int threshold) {
    cv::Mat lit, in_rows, in_columns;
    cv::threshold(brightest(pixels), lit, threshold, 1, cv::THRESH_BINARY);
    cv::reduce(lit, in_rows, 1, cv::REDUCE_SUM, CV_32S);
    cv::reduce(lit, in_columns, 0, cv::REDUCE_SUM, CV_32S);
    const auto rows = above(in_rows, line_share * pixels.cols), columns = above(in_columns, line_share * pixels.rows);
    if (rows.size() < share_min * pixels.rows || columns.size() < share_min * pixels.cols)
        throw Ungradable("NO_FIELD_OF_VIEW",
                         "next to nothing in the picture is bright enough to be a retina; see that light reaches it "
                         "and nothing covers the lens");
    return {cv::Point(columns.front(), rows.front()), cv::Point(columns.back() + 1, rows.back() + 1)};
}

// The picture with all made black but its largest part with a hue, where that is round: a retina on a screen.
cv::Mat without_surroundings(const cv::Mat& pixels, int threshold) {
    const double zoom = static_cast<double>(small_side) / std::max(pixels.rows, pixels.cols);
    const cv::Size size(std::max(1, cvRound(zoom * pixels.cols)), std::max(1, cvRound(zoom * pixels.rows)));
    cv::Mat small, hued(size, CV_8U, cv::Scalar(0)), filled(size, CV_8U, cv::Scalar(0)), inside;
    cv::resize(pixels, small, size, 0, 0, cv::INTER_AREA);
    for (int y = 0; y < size.height; ++y)
        for (int x = 0; x < size.width; ++x) {
            const auto& own = small.at<cv::Vec3b>(y, x);
            if (own[2] > threshold && own[2] - own[0] > pale_most * own[2]) hued.at<unsigned char>(y, x) = 255;
        }
    std::vector<std::vector<cv::Point>> found;
    cv::findContours(hued, found, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
    if (found.empty()) return pixels;
    const auto largest = std::max_element(found.begin(), found.end(), [](const auto& one, const auto& other) {
        return cv::contourArea(one) < cv::contourArea(other);
    });
    cv::drawContours(filled, found, static_cast<int>(largest - found.begin()), 255, cv::FILLED);
    const cv::Rect box = cv::boundingRect(filled);
    const double share = cv::countNonZero(filled) / std::max(1.0, CV_PI / 4 * box.width * box.height);
    const auto [shorter, longer] = std::minmax(box.width, box.height);
    if (share < round_least || share > round_most) return pixels;
    if (shorter < slim_most * std::max<double>(longer, small_side * share_min)) return pixels;
    cv::resize(filled, inside, pixels.size(), 0, 0, cv::INTER_LINEAR);
    cv::Mat black = pixels.clone();
    black.setTo(0, inside <= 127);
    return black;
}

// The picture with a border, or what lies around a screen, made black; most pictures come back as they are.
cv::Mat without_border(const cv::Mat& pixels, int threshold) {
    const int side = std::max(2, cvRound(corner * std::min(pixels.rows, pixels.cols)));
    double low[3] = {255, 255, 255}, high[3] = {0, 0, 0}, lit = 1;
    bool border_like = true, pale = true;
    cv::Scalar sum;
    for (int k = 0; k < 4; ++k) {
        const cv::Point at(k % 2 ? pixels.cols - side : 0, k / 2 ? pixels.rows - side : 0);
        const cv::Mat part = pixels(cv::Rect(at, cv::Size(side, side)));
        cv::Scalar mean, deviation;
        cv::meanStdDev(part, mean, deviation);
        for (int c = 0; c < 3; ++c) {
            low[c] = std::min(low[c], mean[c]);
            high[c] = std::max(high[c], mean[c]);
            border_like = border_like && deviation[c] <= even_most;
        }
        const auto [least, most] = std::minmax({mean[0], mean[1], mean[2]});
        const double cold = std::max(mean[0], mean[1]) - mean[2];  // more blue or green than red, as no retina
        const bool teal = std::abs(mean[0] - mean[1]) <= hue_most;  // black in YCbCr that is called RGB
        border_like = border_like && (most - least <= hue_most || (cold > hue_most && !teal));
        pale = pale && most - least <= pale_most * most;
        lit = std::min(lit, cv::countNonZero(brightest(part) > threshold) / static_cast<double>(side * side));
        sum += mean;
    }
    if (lit <= line_share) return pixels;
    for (int c = 0; c < 3; ++c) border_like = border_like && high[c] - low[c] <= alike;
    if (!border_like) return pale ? without_surroundings(pixels, threshold) : pixels;
    cv::Mat around, mask(pixels.rows + 4, pixels.cols + 4, CV_8U, cv::Scalar(0)), border;
    cv::copyMakeBorder(pixels, around, 1, 1, 1, 1, cv::BORDER_CONSTANT | cv::BORDER_ISOLATED, sum / 4);
    const cv::Scalar near = cv::Scalar::all(alike);
    cv::floodFill(around, mask, {0, 0}, 0, nullptr, near, near,
                  4 | cv::FLOODFILL_FIXED_RANGE | cv::FLOODFILL_MASK_ONLY);
    cv::dilate(mask(cv::Rect(2, 2, pixels.cols, pixels.rows)), border, cv::Mat::ones(5, 5, CV_8U));
    if (cv::countNonZero(border) > all * static_cast<double>(border.total())) return pixels;  // it would leave nothing
    cv::Mat black = pixels.clone();
    black.setTo(0, border);
    cv::Mat part = black(field_of_view(black, threshold));
    without_border(part, threshold).copyTo(part);  // one within the other: a screen's frame
    return black;
}

}  // namespace

Bytes read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Refused("NOT_FOUND", "no such file");
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

Photo::Photo(Bytes data) : data_(std::move(data)), is_jpeg_(starts(data_, "\xff\xd8")) {
    if (data_.empty()) throw Refused("EMPTY_FILE", "the file has 0 bytes");
    if (!is_jpeg_ && !starts(data_, "\x89PNG\r\n\x1a\n")) throw Refused("UNKNOWN_FORMAT", "not a JPEG or PNG file");
    // OpenCV shows what it has of a cut file, without a word
    if (!ends(data_, is_jpeg_ ? "\xff\xd9" : "IEND\xae\x42\x60\x82"))
        throw Refused("DAMAGED", "the end of the file is missing");
    const cv::Size size = is_jpeg_ ? jpeg_size(data_) : png_size(data_);
    width = size.width;
    height = size.height;
    const std::string told = std::to_string(width) + " x " + std::to_string(height) + " pixels";
    if (static_cast<int64_t>(width) * height > pixels_most) throw Refused("TOO_LARGE", told);
    if (std::min(width, height) < side_min) throw Refused("TOO_SMALL", told);
}

int Photo::factor_for(int side) const {
    for (int factor : {8, 4, 2})
        if (std::min(width, height) / factor >= side) return factor;
    return 1;
}

const cv::Mat& Photo::reduced(int factor) {
    if (!reduced_.count(factor)) reduced_[factor] = decoded(factor);
    return reduced_[factor];
}

const Photo::Seen& Photo::seen(int factor, int fov_threshold) {
    const auto key = std::make_pair(factor, fov_threshold);
    if (!seen_.count(key)) {
        const cv::Mat pixels = without_border(reduced(factor), fov_threshold);
        seen_[key] = {pixels, field_of_view(pixels, fov_threshold)};
    }
    return seen_[key];
}

cv::Mat Photo::decoded(int factor) {
    if (!is_jpeg_ && factor > 1) {
        const cv::Size size(width / factor, height / factor);
        cv::Mat small;
        cv::resize(reduced(1)(cv::Rect(cv::Point(), size * factor)), small, size, 0, 0, cv::INTER_AREA);
        return small;
    }
    static const std::map<int, int> flags = {{1, cv::IMREAD_COLOR},
                                             {2, cv::IMREAD_REDUCED_COLOR_2},
                                             {4, cv::IMREAD_REDUCED_COLOR_4},
                                             {8, cv::IMREAD_REDUCED_COLOR_8}};
    const cv::Mat whole = cv::imdecode(data_, is_jpeg_ ? flags.at(factor) : cv::IMREAD_UNCHANGED);
    if (whole.empty()) throw Refused("DAMAGED", "the data is cut or corrupt");
    if (whole.type() != CV_8UC3) throw Refused("UNKNOWN_FORMAT", "of PNG, this example reads 8-bit RGB alone");
    if (whole.cols != (width + factor - 1) / factor) std::swap(width, height);  // EXIF has turned it
    return whole(cv::Rect(0, 0, width / factor, height / factor));              // without pixels that are cut off
}

cv::Mat brightest(const cv::Mat& pixels) {
    std::vector<cv::Mat> channels;
    cv::split(pixels, channels);
    return cv::max(cv::Mat(cv::max(channels[0], channels[1])), channels[2]);
}

namespace {

// The photo as networks' squares are made of it: reduced, and finer only where its field of view is a small part.
int factor_of(Photo& photo, const Geometry& geometry) {
    for (int side = side_least;; side *= 2) {
        const int factor = photo.factor_for(side);
        const cv::Rect& box = photo.seen(factor, geometry.fov_threshold).box;
        if (std::max(box.width, box.height) >= geometry.size || factor == 1) return factor;
    }
}

// Where a square lies whose pixel `to` begins where the reduced photo's `from` does.
Placement placed(int factor, cv::Point from, double scale_x, double scale_y, cv::Point to) {
    return {scale_x / factor, scale_y / factor, (0.5 / factor - from.x) * scale_x - 0.5 + to.x,
            (0.5 / factor - from.y) * scale_y - 0.5 + to.y};
}

// A part of a square, whole pixels around a place, as one of `size` px; what lies outside is black.
Prepared closer(const Prepared& finer, const cv::Point2d& at, double side_px, int size) {
    const int side = std::clamp(static_cast<int>(std::lrint(side_px)), 1, finer.image.rows);
    const auto first = [&](double centre) { return static_cast<int>(std::lrint(centre - (side - 1) / 2.0)); };
    const cv::Rect square(first(at.x), first(at.y), side, side);
    const cv::Rect inside = square & cv::Rect({}, finer.image.size());
    cv::Mat image(side, side, CV_8UC3, cv::Scalar());
    finer.image(inside).copyTo(image(inside - square.tl()));
    cv::resize(image, image, {size, size}, 0, 0, side >= size ? cv::INTER_AREA : cv::INTER_LINEAR);
    const Placement& old = finer.placement;
    const double zoom = static_cast<double>(size) / side;
    const auto moved = [&](double offset, int start) { return (offset - start + 0.5) * zoom - 0.5; };
    return {image,
            {zoom * old.scale_x, zoom * old.scale_y, moved(old.offset_x, square.x), moved(old.offset_y, square.y)},
            side / finer.field()};
}

}  // namespace

Prepared prepare(Photo& photo, const Geometry& geometry) {
    const int size = geometry.size, factor = factor_of(photo, geometry);
    const Photo::Seen& seen = photo.seen(factor, geometry.fov_threshold);
    cv::Rect box = seen.box;
    // the whole part of the reduction first, which is many times faster
    const int whole = std::max(1, std::max(box.width, box.height) / size);
    box.width -= box.width % whole;
    box.height -= box.height % whole;
    const int longer = std::max(box.width, box.height);
    cv::Mat part = seen.pixels(box);
    if (whole > 1) cv::resize(part, part, {box.width / whole, box.height / whole}, 0, 0, cv::INTER_AREA);
    const auto scaled = [&](int length) {
        return std::max(1, static_cast<int>(std::lrint(static_cast<double>(length) * size / longer)));
    };
    const int width = scaled(box.width), height = scaled(box.height);
    cv::resize(part, part, {width, height}, 0, 0, longer >= size ? cv::INTER_AREA : cv::INTER_LINEAR);
    const cv::Point to((size - width) / 2, (size - height) / 2);
    cv::Mat image(size, size, CV_8UC3, cv::Scalar());
    cv::cvtColor(part, image(cv::Rect(to, part.size())), cv::COLOR_BGR2RGB);
    return {image, placed(factor, box.tl(), static_cast<double>(width) / box.width,
                          static_cast<double>(height) / box.height, to)};
}

Prepared finer(Photo& photo, const Geometry& geometry) {
    const int factor = factor_of(photo, geometry);
    const Photo::Seen& seen = photo.seen(factor, geometry.fov_threshold);
    const int longer = std::max(seen.box.width, seen.box.height), whole = std::max(1, longer / geometry.size);
    const int size = longer / whole, side = size * whole;
    const cv::Point end = seen.box.tl() + seen.box.br();
    const cv::Rect square((end.x - side) >> 1, (end.y - side) >> 1, side, side);  // may lie outside, which is black
    const cv::Rect inside = square & seen.box;
    cv::Mat image(side, side, CV_8UC3, cv::Scalar());
    cv::cvtColor(seen.pixels(inside), image(inside - square.tl()), cv::COLOR_BGR2RGB);
    if (whole > 1) cv::resize(image, image, {size, size}, 0, 0, cv::INTER_AREA);
    return {image, placed(factor, square.tl(), 1.0 / whole, 1.0 / whole, {}), static_cast<double>(side) / longer};
}

Prepared middle(const Prepared& finer, double share, int size) {
    const double centre = (finer.image.rows - 1) / 2.0;
    return closer(finer, {centre, centre}, share * finer.field(), size);
}

Prepared around(const Prepared& finer, const Spot& spot, const Geometry& geometry) {
    return closer(finer, spot.at, geometry.diameters * spot.diameter_px, geometry.size);
}

cv::Mat on_square(const cv::Mat& map, const Placement& of, const Prepared& square) {
    const Placement& at = square.placement;
    const int size = square.image.rows;
    cv::Mat whole, moved(size, size, CV_32F);
    cv::copyMakeBorder(map, whole, 1, 1, 1, 1, cv::BORDER_CONSTANT, cv::Scalar());
    const auto between = [&](int k, double scale, double offset, double of_scale, double of_offset) {
        const double place = std::clamp((k - offset) * (of_scale / scale) + of_offset, -1.0, double(map.rows));
        const double before = std::min(std::floor(place), map.rows - 1.0);
        return std::pair(static_cast<int>(before) + 1, static_cast<float>(place - before));
    };
    for (int y = 0; y < size; ++y) {
        const auto [row, down] = between(y, at.scale_y, at.offset_y, of.scale_y, of.offset_y);
        const float *above = whole.ptr<float>(row), *below = whole.ptr<float>(row + 1);
        for (int x = 0; x < size; ++x) {
            const auto [column, right] = between(x, at.scale_x, at.offset_x, of.scale_x, of.offset_x);
            const auto tall = [&, down = down](int k) { return above[k] * (1 - down) + below[k] * down; };
            moved.at<float>(y, x) = tall(column) * (1 - right) + tall(column + 1) * right;
        }
    }
    return moved;
}

void expect_colours(const cv::Mat& image) {
    const cv::Scalar mean = cv::mean(image);
    if (std::max(mean[1], mean[2]) - mean[0] > excess_most)
        throw Ungradable("UNLIKELY_COLOURS", "green or blue is brighter than red, as in no retina");
}
