// Whether what was taken for a disc can be one, and whether it is burnt out, as postprocess/plausible.py judges it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "measure.hpp"

namespace {

constexpr double smallest = 0.035, largest = 0.35;  // vertical diameter over the field's side
constexpr double narrow = 0.45, wide = 1.35;        // width over height
constexpr double hollow = 0.8, full = 1.15;         // area over that of the ellipse in its box
constexpr double solid = 0.85;                      // area over that of the convex hull
constexpr double far = 5, near = 0.7;               // disc diameters from the fovea
constexpr double sure = 1.4, steep = 1.7;           // the same; of that, the height over the distance across
constexpr double burnt = 245, too_much = 0.05;      // of the green channel; of the disc's area

// From the fovea to the disc, in disc diameters; NaN where one is not known.
cv::Point2d away(const Anatomy& seen) {
    if (!seen.region || !seen.fovea) {
        const double none = std::numeric_limits<double>::quiet_NaN();
        return {none, none};
    }
    const cv::Moments moments = cv::moments(seen.region->disc, true);
    const cv::Point2d at = seen.region->to_map(moments.m10 / moments.m00, moments.m01 / moments.m00);
    return (at - *seen.fovea) * (static_cast<double>(zoom) / seen.disc_px);
}

double apart(const Anatomy& seen) {
    const cv::Point2d way = away(seen);
    return std::hypot(way.x, way.y);
}

bool is_round(const cv::Mat& mask) {
    const double height = vertical_diameter(mask), width = vertical_diameter(mask.t());
    const double area = cv::countNonZero(mask), share = area / (CV_PI / 4 * height * width);
    std::vector<std::vector<cv::Point>> found;
    cv::findContours(mask, found, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
    std::vector<cv::Point> hull;
    cv::convexHull(*std::max_element(found.begin(), found.end(),
                                     [](const auto& one, const auto& other) { return one.size() < other.size(); }),
                   hull);
    return narrow <= width / height && width / height <= wide && hollow <= share && share <= full &&
           area >= solid * cv::contourArea(hull);
}

}  // namespace

bool is_disc(const Anatomy& seen, double field_px) {
    const double share = static_cast<double>(seen.disc_px) / zoom / field_px;
    return smallest <= share && share <= largest && is_round(seen.region->disc) && !(apart(seen) > far);
}

bool is_burnt_out(const Anatomy& seen, const cv::Mat& image) {
    const Region& region = *seen.region;
    const cv::Rect around(region.x, region.y, region.disc.cols / zoom, region.disc.rows / zoom);
    cv::Mat green, fine;
    cv::extractChannel(image(around), green, 1);
    cv::resize(green, fine, region.disc.size(), 0, 0, cv::INTER_NEAREST);
    const int bright = cv::countNonZero((fine >= burnt) & (region.disc > 0));
    return bright >= too_much * cv::countNonZero(region.disc);
}

bool is_fovea(const Anatomy& seen) { return !(apart(seen) < near); }

bool is_sideways(const Anatomy& seen, bool otherwise) {
    const cv::Point2d way = away(seen);
    return apart(seen) >= sure ? std::abs(way.y) > steep * std::abs(way.x) : otherwise;
}
